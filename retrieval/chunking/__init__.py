"""How is a document divided into chunks? Sentences, headings, and chunks as exact spans."""
