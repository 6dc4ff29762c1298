"""Section 3.2, 4.3 and 5: are the ways of thinking different inside the student? Encoder, Dirichlet-process mixture, measures, maps."""
