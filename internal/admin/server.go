package admin

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Config is what a Server shows.
type Config struct {
	Source   Source
	Gatherer prometheus.Gatherer
	Build    string    // version and build on one line
	Started  time.Time // of the process
	Log      *slog.Logger
}

// Validate returns everything that is missing, joined.
func (c Config) Validate() error {
	var errs []error
	if c.Source == nil {
		errs = append(errs, errors.New("the config has no Source"))
	}
	if c.Gatherer == nil {
		errs = append(errs, errors.New("the config has no Gatherer"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("the config has no Log"))
	}
	return errors.Join(errs...)
}

// Server answers HTTP on the admin address.
type Server struct {
	cfg Config
	mux *http.ServeMux
}

// New returns a server that has not begun to listen.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, mux: http.NewServeMux()}
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		ErrorHandling:     promhttp.ContinueOnError,
		ErrorLog:          errorLog{cfg.Log},
	}))
	s.mux.HandleFunc("GET /livez", s.livez)
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.HandleFunc("GET /cluster", s.cluster)
	s.mux.HandleFunc("GET /{$}", s.status)
	for path, check := range map[string]func(*http.Request, Cluster) (bool, error){
		"/primary":   isPrimary,
		"/replica":   isReplica,
		"/read-only": isReadOnly,
	} {
		// OPTIONS is what HAProxy asks with when it is told no method.
		for _, method := range []string{"GET ", "OPTIONS "} {
			s.mux.HandleFunc(method+path, s.balancer(check))
		}
	}
	return s, nil
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	s.mux.ServeHTTP(w, r)
}

// The bounds of one request; a scrape is the slowest.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	closeTimeout  = 2 * time.Second
)

// Serve answers on ln until ctx ends, lets running requests end for two seconds, and returns
// nil then. It owns ln and closes it.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if srv.Shutdown(bounded) != nil {
			_ = srv.Close() // whoever is still asking is cut off
		}
	})
	err := srv.Serve(ln)
	if stop() { // ctx has not ended: the listener broke
		return err
	}
	<-stopped
	return nil
}

// errorLog lets promhttp complain.
type errorLog struct{ log *slog.Logger }

// Println logs what could not be gathered.
func (e errorLog) Println(v ...any) {
	for _, x := range v {
		if err, ok := x.(error); ok {
			e.log.Error("gathering metrics", "error", err)
		}
	}
}
