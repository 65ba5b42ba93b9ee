"""What people look at: pages, charts, the console, comparisons."""
