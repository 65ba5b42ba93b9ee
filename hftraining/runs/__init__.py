"""What a run leaves behind: its folder, its identity, its report."""
