"""How is a model trained? Lists with a teacher's scores, the network, its loss, the loop and the job."""
