node    = "a b"
address = "127.0.0.1"
peers   = ["127.0.0.1"]
role    = "voters"
profile = "quick"
log {
  level  = "warning"
  format = "xml"
}
