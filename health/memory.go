package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// memory is what must survive a restart of the process (rule 5): the line, and how far each node
// was seen to receive of it. It is one JSON file a cluster in state_dir.
type memory struct {
	Version     int                     `json:"version"`
	System      uint64                  `json:"system_identifier,string"`
	Timeline    uint32                  `json:"timeline"`
	Fork        string                  `json:"fork"`
	Node        string                  `json:"node"`
	Flushed     string                  `json:"flushed"`
	Unconfirmed bool                    `json:"unconfirmed,omitempty"`
	Nodes       map[string]memoryOfNode `json:"nodes"` // by address
}

// memoryOfNode is what is kept of one node.
type memoryOfNode struct {
	Member   bool   `json:"member,omitempty"`
	Timeline uint32 `json:"timeline,omitempty"`
	Received string `json:"received,omitempty"`
	Replayed string `json:"replayed,omitempty"`
	Rival    bool   `json:"rival,omitempty"`
	Outvoted bool   `json:"outvoted,omitempty"`
	Manual   bool   `json:"quarantined,omitempty"`
}

// memoryVersion is the version that this code writes and reads.
const memoryVersion = 1

// store is where a memory lives; without a path it is nowhere and saving does nothing.
type store struct{ path string }

// newStore makes state_dir if it is missing and proves that it can be written to.
func newStore(dir, cluster string) (*store, error) {
	if dir == "" {
		return &store{}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state_dir: %w", err)
	}
	probe, err := os.CreateTemp(dir, ".probe-*")
	if err != nil {
		return nil, fmt.Errorf("write to state_dir: %w", err)
	}
	err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	if err != nil {
		return nil, fmt.Errorf("write to state_dir: %w", err)
	}
	return &store{path: filepath.Join(dir, url.PathEscape(cluster)+".json")}, nil
}

// load reads the memory; nil without an error when there is none. A memory that cannot be read is
// an error: to go on without it would be to forget which primary is the old one.
func (s *store) load() (*memory, error) {
	if s.path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read memory: %w", err)
	}
	m := new(memory)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("read memory %s: %w; remove the file to start without memory", s.path, err)
	}
	if m.Version != memoryVersion {
		return nil, fmt.Errorf("read memory %s: version %d, this program knows %d", s.path, m.Version, memoryVersion)
	}
	return m, nil
}

// save writes the memory so that it survives a crash of the machine: a new file, synced, moved
// over the old one, and the directory synced.
func (s *store) save(m *memory) error {
	if s.path == "" {
		return nil
	}
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(s.path), "."+filepath.Base(s.path)+"-*")
	if err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("write memory: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(filepath.Dir(s.path))
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("write memory: %w", err)
	}
	return nil
}

// remember is the memory of b as it would be with the line l.
func (b *book) remember(l line) *memory {
	m := &memory{
		Version: memoryVersion, System: l.System, Timeline: l.Timeline, Fork: l.Fork.String(), Node: l.Node,
		Flushed: l.Flushed.String(), Unconfirmed: b.pending, Nodes: make(map[string]memoryOfNode),
	}
	for addr, old := range b.absent {
		m.Nodes[addr] = old
	}
	for _, f := range b.nodes {
		m.Nodes[f.cfg.addr()] = f.remember()
	}
	return m
}

// remember is what is kept of f.
func (f *facts) remember() memoryOfNode {
	n := memoryOfNode{Member: f.member, Rival: f.rival, Outvoted: f.outvoted, Manual: f.manual}
	if f.received.Timeline != 0 {
		n.Timeline, n.Received = f.received.Timeline, f.received.Position.String()
		if f.replayed.Timeline == f.received.Timeline {
			n.Replayed = f.replayed.Position.String()
		}
	}
	return n
}

// recall puts back what was kept of f.
func (f *facts) recall(n memoryOfNode) error {
	f.member, f.rival, f.outvoted, f.manual = n.Member, n.Rival, n.Outvoted, n.Manual
	if n.Timeline == 0 {
		return nil
	}
	received, err := parseLSN(n.Received)
	if err != nil {
		return err
	}
	f.received = mark{n.Timeline, received}
	if n.Replayed == "" {
		return nil
	}
	replayed, err := parseLSN(n.Replayed)
	if err != nil {
		return err
	}
	f.replayed = mark{n.Timeline, replayed}
	return nil
}

// recall puts a memory back into an empty book.
func (b *book) recall(m *memory) error {
	if m == nil {
		return nil
	}
	fork, err := parseLSN(m.Fork)
	if err != nil {
		return err
	}
	flushed, err := parseLSN(m.Flushed)
	if err != nil {
		return err
	}
	for addr, n := range m.Nodes {
		if err := new(facts).recall(n); err != nil {
			return fmt.Errorf("node %s: %w", addr, err)
		}
		b.absent[addr] = n
	}
	b.pending = m.Unconfirmed
	b.line = line{System: m.System, Timeline: m.Timeline, Fork: fork, Node: m.Node, Flushed: flushed}
	return nil
}
