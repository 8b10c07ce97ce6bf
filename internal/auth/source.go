package auth

import (
	"context"
	"errors"
	"fmt"
)

// ErrNoUser says that a source knows no user of this name who may log in with a password. The
// client must not learn it: it gets a ServerExchange with the zero Secret.
var ErrNoUser = errors.New("no such user")

// Source knows secrets of users. Lookup returns ErrNoUser for one it does not know, and another
// error where it cannot tell now. Implementations may be used by many goroutines.
type Source interface {
	Lookup(ctx context.Context, user string) (Secret, error)
}

// Forgetter is a Source that remembers answers: Forget drops what it remembers of a user whose
// proof failed, so that a changed password works at the next try.
type Forgetter interface {
	Forget(user string)
}

// Static is the users of a configuration. It must not change after its first use.
type Static map[string]Secret

// Lookup is the configured secret of the user.
func (s Static) Lookup(_ context.Context, user string) (Secret, error) {
	secret, ok := s[user]
	if !ok || secret.IsZero() {
		return Secret{}, ErrNoUser
	}
	return secret, nil
}

// Chain asks its sources in order; the first that knows the user decides. A source that cannot
// tell now ends the search with its error: a later one might hold an older secret of the same
// user. A Query without rights (ErrQueryRights) can never tell and is passed over.
type Chain []Source

// Lookup is the answer of the first source that knows the user. Where none does and a Query had
// no rights, the error is ErrNoUser and ErrQueryRights both.
func (c Chain) Lookup(ctx context.Context, user string) (Secret, error) {
	unknown := ErrNoUser
	for _, s := range c {
		secret, err := s.Lookup(ctx, user)
		switch {
		case errors.Is(err, ErrQueryRights):
			unknown = fmt.Errorf("%w, as far as can be told: %w", ErrNoUser, err)
		case !errors.Is(err, ErrNoUser):
			return secret, err
		}
	}
	return Secret{}, unknown
}

// Forget passes on to the sources that remember.
func (c Chain) Forget(user string) {
	for _, s := range c {
		if f, ok := s.(Forgetter); ok {
			f.Forget(user)
		}
	}
}
