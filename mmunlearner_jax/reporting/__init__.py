"""What people read of a run or a comparison: pages, tables in the terminal, figures, Markdown."""
