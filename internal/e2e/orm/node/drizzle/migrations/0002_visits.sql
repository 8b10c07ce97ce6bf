ALTER TABLE "authors" ADD COLUMN "visits" integer DEFAULT 0 NOT NULL;
--> statement-breakpoint
INSERT INTO "authors" ("name", "visits") VALUES ('greeted', 1);
--> statement-breakpoint
DELETE FROM "authors" WHERE "visits" = 1;
