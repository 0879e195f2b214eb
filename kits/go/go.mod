module github.com/birthmark/birthmark/kits/go

go 1.24
