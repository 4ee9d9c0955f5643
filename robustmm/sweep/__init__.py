"""Many runs of one command line: which, in which folders, and who starts them."""
