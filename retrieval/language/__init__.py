"""What do the characters of a text say in their language? Its words, and which language it is."""
