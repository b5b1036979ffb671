"""How is a model trained? Lists of passages with a teacher's scores, the network, its loss and the loop."""
