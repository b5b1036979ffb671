"""What does a web page say? Its main part or its article, without what is around it."""
