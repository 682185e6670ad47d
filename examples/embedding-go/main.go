// Command embedding-go runs session.wasm in wasmtime and serves a page with a view counter.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// maxHeaderBytes limits all headers of a request. Each byte of the Cookie header takes 32 bytes on
// the way to the component, which reads 16 KiB of it at most.
const maxHeaderBytes = 32 << 10

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "the `address` to listen on")
	isConformance := flag.Bool("conformance", false, "serve the conformance scenarios on the port in the last argument")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: embedding-go [-listen ADDRESS] [SESSION.WASM]\n       embedding-go -conformance PORT")
		flag.PrintDefaults()
	}
	flag.Parse()
	path, address, application := os.Getenv("EDGE_SESSION_COMPONENT"), *listen, counter()
	switch {
	case flag.NArg() > 1 || *isConformance && flag.NArg() == 0:
		flag.Usage()
		os.Exit(2)
	case *isConformance:
		address, application = "127.0.0.1:"+flag.Arg(0), http.HandlerFunc(conformance)
	case flag.NArg() == 1:
		path = flag.Arg(0)
	}
	if err := serve(path, address, application); err != nil {
		fmt.Fprintln(os.Stderr, "embedding-go:", err)
		os.Exit(1)
	}
}

// serve opens the component with the options in the environment, and serves an application.
func serve(path, address string, application http.Handler) error {
	if path == "" {
		return errors.New("no component: name session.wasm in an argument or in EDGE_SESSION_COMPONENT")
	}
	if store := os.Getenv("EDGE_SESSION_STORE"); store != "" && store != "memory:" {
		return errors.New("EDGE_SESSION_STORE: this program has no store but memory:")
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	settings := []Setting{{"secret", Value{Case: "text", Text: os.Getenv("EDGE_SESSION_SECRET")}}}
	if options := os.Getenv("EDGE_SESSION_OPTIONS"); options != "" {
		if settings, err = flatten(settings, "", json.RawMessage(options)); err != nil {
			return fmt.Errorf("EDGE_SESSION_OPTIONS: %w", err)
		}
	}
	engine, err := Open(wasm, settings)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer engine.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	server := http.Server{
		Handler:           NewSessions(engine, NewMemoryStore()).Middleware(application),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	return server.Serve(listener)
}

// flatten appends options in JSON, with the names of docs/configuration.md: `cookie.max_age` is the
// option `max_age` in the object `cookie`.
func flatten(settings []Setting, prefix string, options json.RawMessage) ([]Setting, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(options, &members); err != nil {
		return nil, err
	}
	for name, value := range members {
		if value[0] != '{' {
			settings = append(settings, Setting{prefix + name, Value{Case: "json", JSON: string(value)}})
			continue
		}
		var err error
		if settings, err = flatten(settings, prefix+name+".", value); err != nil {
			return nil, err
		}
	}
	return settings, nil
}

// counter is the page with a view counter, and a logout.
func counter() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		session := SessionOf(r)
		if r.URL.Path != "/" || session == nil {
			http.NotFound(w, r)
			return
		}
		views := 0
		err := session.Get("views", &views)
		if err == nil {
			err = session.Set("views", views+1)
		}
		if err != nil {
			http.Error(w, "The page failed.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html><p>%d views</p><form method=post action=/logout><button>log out</button></form>\n", views+1)
	})
	mux.HandleFunc("/logout", func(w http.ResponseWriter, r *http.Request) {
		session := SessionOf(r)
		if r.Method != http.MethodPost || session == nil {
			http.Error(w, "A logout is a POST.", http.StatusMethodNotAllowed)
			return
		}
		if err := session.Destroy(); err != nil {
			http.Error(w, "The logout failed.", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	})
	return mux
}
