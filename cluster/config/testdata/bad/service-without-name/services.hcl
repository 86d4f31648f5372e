service {
  vip "192.0.2.100/24" { interface = "eth0" }
}
