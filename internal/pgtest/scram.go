package pgtest

import (
	"crypto/md5"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/xdg-go/scram"
)

// The mechanisms of PostgreSQL.
const (
	scramPlain = "SCRAM-SHA-256"
	scramPlus  = "SCRAM-SHA-256-PLUS"
)

// md5Answer is the answer to AuthenticationMD5Password.
func md5Answer(user, password string, salt []byte) string {
	inner := md5.Sum([]byte(password + user))
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...))
	return "md5" + hex.EncodeToString(outer[:])
}

// scramProof is a client's side of SCRAM.
type scramProof struct{ conv *scram.ClientConversation }

// step answers a message of the server.
func (p *scramProof) step(data []byte) (string, error) {
	if p == nil {
		return "", errors.New("server continues a SASL exchange that was not begun")
	}
	reply, err := p.conv.Step(string(data))
	if err != nil {
		return "", fmt.Errorf("answer SCRAM: %w", err)
	}
	return reply, nil
}

// verified says whether the server has proven that it knows the password.
func (p *scramProof) verified() bool { return p.conv.Valid() }

// startSCRAM chooses among the mechanisms and makes the first message: with channel binding
// when there is TLS and the server offers it.
func (c *RawClient) startSCRAM(data []byte) (*scramProof, Message, error) {
	mechanisms := strings.Split(string(data), "\x00")
	client, err := scram.SHA256.NewClient("", c.cfg.Password, "")
	if err != nil {
		return nil, Message{}, fmt.Errorf("prepare SCRAM: %w", err)
	}
	conv, mechanism := client.NewConversation(), scramPlain
	if t, ok := c.conn.(*tls.Conn); ok && slices.Contains(mechanisms, scramPlus) {
		state := t.ConnectionState()
		binding, err := scram.NewTLSServerEndpointBinding(&state)
		if err != nil {
			return nil, Message{}, fmt.Errorf("bind SCRAM to the certificate: %w", err)
		}
		conv, mechanism = client.NewConversationWithChannelBinding(binding), scramPlus
	} else if !slices.Contains(mechanisms, scramPlain) {
		return nil, Message{}, fmt.Errorf("no mechanism of the server is known: %q", mechanisms)
	}
	first, err := conv.Step("")
	if err != nil {
		return nil, Message{}, fmt.Errorf("start SCRAM: %w", err)
	}
	return &scramProof{conv}, Msg('p', mechanism, Value(first)), nil
}

// scramServer is a node's side of SCRAM for one password.
func scramServer(password string) (*scram.ServerConversation, error) {
	client, err := scram.SHA256.NewClient("", password, "")
	if err != nil {
		return nil, err
	}
	stored, err := client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "a salt of a test", Iters: 4096})
	if err != nil {
		return nil, err
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
	if err != nil {
		return nil, err
	}
	return server.NewConversation(), nil
}
