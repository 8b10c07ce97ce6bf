// Package auth answers who may come in, and with which key a node is asked to let that user in.
//
// A [Source] turns the name of a user into a [Secret]: what PostgreSQL keeps in
// pg_authid.rolpassword, or a plaintext password of a configuration. There are three:
// [Static] (the configuration), [Userlist] (PgBouncer's file) and [Query] (the current primary
// is asked). [Chain] asks several in order.
//
// A [ServerExchange] is the node's side of a login, played towards a client:
//
//	Begin ──▶ AuthenticationSASL ──Step(SASLInitialResponse)──▶ AuthenticationSASLContinue
//	                                     ──Step(SASLResponse)──▶ AuthenticationSASLFinal, done
//	Begin ──▶ AuthenticationMD5Password ──Step(PasswordMessage)──▶ done
//
// Every other order of messages ends the exchange. Which of the two it is depends on the secret
// alone, never on the client: a client can choose between SCRAM-SHA-256 and SCRAM-SHA-256-PLUS
// and nothing else. A user that does not exist gets the exchange of one that does, and fails at
// the proof.
//
// A [ClientExchange] is the client's side, played towards a node. It logs in with [Keys]: the
// proof of a client yields its ClientKey, and the same key logs in to every node that holds the
// same verifier, so that no plaintext password is needed (RFC 5802, section 3).
//
// Nothing in this package writes to a socket or a log but [Userlist], which logs that its file
// cannot be read any more, and [Query], which holds one connection to a node.
package auth
