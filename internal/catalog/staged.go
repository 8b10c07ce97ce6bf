package catalog

import (
	"context"
	"time"

	"pgweir/router"
)

// Staged is a manager that asks no server: read stands in for it, and is called where a
// database would be read. All of roles exist and may use the schemas pg_catalog and public. It is for tests of what
// classifies by a view; serving starts with New.
func Staged(cfg Config, roles []string, read func(ctx context.Context, database string) (*router.Catalog, error)) *Manager {
	known := &rights{roles: make(map[string]role, len(roles)), byName: map[string]int{"pg_catalog": 0, "public": 1}}
	known.schemas = make([]schema, len(known.byName))
	for i, name := range roles {
		known.roles[name] = role{oid: uint32(i + 1), super: true}
	}
	return newManager(cfg, func(ctx context.Context, database string, _ *cache) (*snapshot, error) {
		began := time.Now()
		view, err := read(ctx, database)
		if err != nil {
			return nil, err
		}
		mine := *view
		return &snapshot{catalog: &mine, rights: known, readAt: began}, nil
	})
}
