service "erp" {
  vip "192.0.2.100" { interface = "eth0" }
  vip "192.0.2.0/24" { interface = "eth0" }
  vip "192.0.2.255/24" { interface = "eth0" }
  vip "10.1.7.255/21" { interface = "eth0" }
  vip "192.0.2.300/24" { interface = "eth0" }
  vip "192.0.2.100/33" { interface = "eth0" }
  vip "192.0.2.101/0" { interface = "eth0" }
  vip "127.0.0.2/8" { interface = "eth0" }
  vip "224.0.0.9/24" { interface = "eth0" }
  vip "2001:db8::1/64" { interface = "eth0" }
  vip "web" { interface = "eth0" }
}
