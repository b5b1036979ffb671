"""What does a manual page say? Its text without the macros of man(7) and mdoc(7)."""
