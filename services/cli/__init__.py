"""`tandem`: a client of the two HTTP APIs, and `doctor`."""
