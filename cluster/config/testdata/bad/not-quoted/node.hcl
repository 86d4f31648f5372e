node    = a
address = "127.0.0.1"
peers   = ["127.0.0.1"]
role    = voter
