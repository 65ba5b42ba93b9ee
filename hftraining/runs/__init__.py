"""What a run leaves behind: its folder, its result, its identity and its ledger row."""
