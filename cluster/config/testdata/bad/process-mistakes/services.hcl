service "erp" {
  process "erp" {
    command       = ["erp", "-v"]
    environment   = { "A B" = "1", FAILOVER_NODE = "x", N = 1 }
    directory     = "tmp"
    user          = "Root User"
    stop_signal   = "SIGFOO"
    stop_timeout  = 10
    start_timeout = "2h"
    ready         = "8080"
    restarts      = -1
  }
  process "none" {}
  process "empty" { command = [] }
  process "line" { command = "/usr/bin/erp -v" }
  process "dots" { command = ["/usr/bin/../bin/erp"] }
}
