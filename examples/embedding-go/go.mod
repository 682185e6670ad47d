module embedding-go

go 1.19
