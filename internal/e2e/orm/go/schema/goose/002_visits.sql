-- +goose Up
ALTER TABLE authors ADD COLUMN visits integer NOT NULL DEFAULT 0;
INSERT INTO authors (name, visits) VALUES ('greeted', 1);
DELETE FROM authors WHERE visits = 1;

-- +goose Down
ALTER TABLE authors DROP COLUMN visits;
