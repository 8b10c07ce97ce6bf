ALTER TABLE authors DROP COLUMN visits;
