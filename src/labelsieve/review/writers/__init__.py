"""Writers of corrected labels, one a kind of source: what comes out has the form of what went in."""
