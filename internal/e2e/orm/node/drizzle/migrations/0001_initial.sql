CREATE TABLE "authors" ("id" serial PRIMARY KEY, "name" varchar(100) NOT NULL UNIQUE);
--> statement-breakpoint
CREATE TABLE "books" ("id" serial PRIMARY KEY, "author_id" integer NOT NULL REFERENCES "authors" ("id") ON DELETE CASCADE, "title" text NOT NULL);
