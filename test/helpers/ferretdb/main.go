// Serves FerretDB, an open-source database that speaks MongoDB's wire protocol, from SQLite files in one folder, for
// tests. FerretDB 1 reads, changes and writes back in separate steps, so that of fifty concurrent updates that ask for
// the same old value several succeed; MongoDB promises that each document changes in one step. The proxy in front keeps
// that promise: commands that write wait for each other, everything else runs as it comes.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
)

const (
	headerBytes = 16
	maxMessage  = 48_000_000 + headerBytes
	opMsg       = 2013
)

// Order matters to nobody but the lock: these change documents or collections.
var writes = map[string]bool{
	"insert": true, "update": true, "delete": true, "findAndModify": true, "findandmodify": true,
	"create": true, "createIndexes": true, "dropIndexes": true, "drop": true, "dropDatabase": true,
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "TCP address to serve; port 0 picks a free one")
	folder := flag.String("data", "", "folder for the SQLite files, created when missing (required)")
	flag.Parse()
	if err := serve(*listen, *folder); err != nil {
		fmt.Fprintln(os.Stderr, "ferretdb-local:", err)
		os.Exit(1)
	}
}

func serve(listen, folder string) error {
	if folder == "" {
		return errors.New("-data is required")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	socket := filepath.Join(folder, "socket")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Handler:   "sqlite",
		SQLiteURL: "file:" + folder + "/",
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- server.Run(ctx) }()
	if err := awaitSocket(ctx, socket, failed); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	go accept(listener, socket)
	fmt.Printf("mongodb://%s/\n", listener.Addr())
	return <-failed
}

func awaitSocket(ctx context.Context, socket string, failed <-chan error) error {
	for {
		if conn, err := net.Dial("unix", socket); err == nil {
			return conn.Close()
		}
		select {
		case err := <-failed:
			return fmt.Errorf("FerretDB did not start: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func accept(listener net.Listener, socket string) {
	var writing sync.Mutex
	for {
		client, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("unix", socket)
			if err != nil {
				return
			}
			defer server.Close()
			for pass(client, server, &writing) == nil {
			}
		}()
	}
}

// pass relays one command and its answer.
func pass(client, server net.Conn, writing *sync.Mutex) error {
	request, err := readMessage(client)
	if err != nil {
		return err
	}
	if writes[commandName(request)] {
		writing.Lock()
		defer writing.Unlock()
	}
	if _, err := server.Write(request); err != nil {
		return err
	}
	answer, err := readMessage(server)
	if err != nil {
		return err
	}
	_, err = client.Write(answer)
	return err
}

func readMessage(from io.Reader) ([]byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(from, header[:]); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header[:])
	if length < headerBytes || length > maxMessage {
		return nil, fmt.Errorf("message of %d bytes", length)
	}
	message := make([]byte, length)
	copy(message, header[:])
	_, err := io.ReadFull(from, message[headerBytes:])
	return message, err
}

// commandName is the name of the first element of the first section, which is the command.
func commandName(message []byte) string {
	const name = headerBytes + 4 + 1 + 4 + 1 // flags, kind of section, length of document, type of element
	if len(message) <= name || binary.LittleEndian.Uint32(message[12:]) != opMsg || message[headerBytes+4] != 0 {
		return ""
	}
	end := bytes.IndexByte(message[name:], 0)
	if end < 0 {
		return ""
	}
	return string(message[name : name+end])
}
