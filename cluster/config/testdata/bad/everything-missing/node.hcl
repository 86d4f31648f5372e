# a file that says nothing
