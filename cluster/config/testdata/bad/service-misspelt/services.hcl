servise "erp" {
}
