"""Images with any number of labels each, called tags here, from wherever they lie to the record of later stages."""
