package health

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// source is a parsed discover setting.
type source struct {
	name string
	port int // 0: the records name it, else DefaultPort
}

// errNoAddress is a look-up that worked and found nothing; like a failed one it changes nothing.
var errNoAddress = errors.New("no address")

// parseDiscover reads "dns://name" or "dns://name:port".
func parseDiscover(s string) (source, error) {
	rest, ok := strings.CutPrefix(s, "dns://")
	if !ok {
		return source{}, fmt.Errorf("discover: %q; accepted: dns://name:port", s)
	}
	src := source{name: rest}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		port, err := strconv.Atoi(rest[i+1:])
		if err != nil || port < 1 || port > 65535 {
			return source{}, fmt.Errorf("discover: %q: %q is no port", s, rest[i+1:])
		}
		src.name, src.port = rest[:i], port
	}
	if src.name == "" || strings.ContainsAny(src.name, "/?@ ") {
		return source{}, fmt.Errorf("discover: %q: %q is no name to look up", s, src.name)
	}
	return src, nil
}

// lookup finds the nodes behind the name: SRV records where the name has the form of one, or where
// no port was given and there are some; otherwise each A and AAAA record is a node. The answer is
// sorted, so that the order of records means nothing.
func (s source) lookup(ctx context.Context, r Resolver) ([]NodeConfig, error) {
	service := strings.HasPrefix(s.name, "_")
	if service || s.port == 0 {
		nodes, err := s.lookupSRV(ctx, r)
		if service || err == nil {
			return nodes, err
		}
	}
	addrs, err := r.LookupNetIP(ctx, "ip", s.name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", s.name, err)
	}
	port := s.port
	if port == 0 {
		port = DefaultPort
	}
	var nodes []NodeConfig
	for _, a := range unique(addrs) {
		nodes = append(nodes, NodeConfig{Host: a.String(), Port: port, Weight: 1, ServerName: s.name})
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("look up %s: %w", s.name, errNoAddress)
	}
	return nodes, nil
}

// lookupSRV finds the nodes that SRV records name.
func (s source) lookupSRV(ctx context.Context, r Resolver) ([]NodeConfig, error) {
	_, records, err := r.LookupSRV(ctx, "", "", s.name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", s.name, err)
	}
	var nodes []NodeConfig
	for _, rec := range records {
		n := NodeConfig{Host: strings.TrimSuffix(rec.Target, "."), Port: int(rec.Port), Weight: 1}
		same := func(o NodeConfig) bool { return o.Host == n.Host && o.Port == n.Port }
		if n.Host != "" && n.Port != 0 && !slices.ContainsFunc(nodes, same) {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) == 0 {
		return nil, fmt.Errorf("look up %s: %w", s.name, errNoAddress)
	}
	slices.SortFunc(nodes, func(a, b NodeConfig) int { return strings.Compare(a.addr(), b.addr()) })
	return nodes, nil
}

// unique sorts addresses, IPv4 in its own form, and drops repetitions.
func unique(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.Unmap())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// discover looks the nodes up each discovery.interval, and at once when again is signalled, and
// hands every answer that names nodes to found. What fails or is empty changes nothing.
func discover(ctx context.Context, cfg *Config, again <-chan struct{}, found func([]NodeConfig), missed func(error)) {
	src, err := parseDiscover(cfg.Discover)
	if err != nil {
		missed(err)
		return
	}
	resolver := cfg.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-again:
			// Failures come in bursts; a look-up a second is enough for them.
			if time.Since(last) < time.Second {
				continue
			}
		}
		last = time.Now()
		lctx, cancel := context.WithTimeout(ctx, cfg.DiscoveryInterval)
		nodes, err := src.lookup(lctx, resolver)
		cancel()
		switch {
		case err == nil:
			found(nodes)
		case ctx.Err() == nil:
			missed(err)
		}
		timer.Reset(cfg.DiscoveryInterval)
	}
}
