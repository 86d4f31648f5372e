node    = "a${1}"
address = "${"127.0.0.1"}"
peers   = [for i in [1, 2, 3] : "127.0.0.${i}"]
data_dir = upper("/x")
socket  = true ? "a" : "b"
