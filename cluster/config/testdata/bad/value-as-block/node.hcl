node    = "a"
address = "127.0.0.1"
peers { a = "127.0.0.1" }
