BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('3');
CREATE TABLE certificate (
	serial VARCHAR(64) NOT NULL, 
	kind VARCHAR(255) DEFAULT '' NOT NULL, 
	name VARCHAR(255) DEFAULT '' NOT NULL, 
	fingerprint VARCHAR(255) DEFAULT '' NOT NULL, 
	issued_at DOUBLE NOT NULL, 
	not_after DOUBLE NOT NULL, 
	revoked_at DOUBLE, 
	reason VARCHAR(255) DEFAULT '' NOT NULL, 
	PRIMARY KEY (serial)
);
CREATE TABLE change (
	id INTEGER NOT NULL, 
	number BIGINT NOT NULL, 
	at DOUBLE NOT NULL, 
	who VARCHAR(255) DEFAULT '' NOT NULL, 
	kind VARCHAR(255) DEFAULT '' NOT NULL, 
	subject VARCHAR(255) DEFAULT '' NOT NULL, 
	tree_id INTEGER DEFAULT '0' NOT NULL, 
	action VARCHAR(255) DEFAULT '' NOT NULL, 
	"before" JSON NOT NULL, 
	"after" JSON NOT NULL, 
	PRIMARY KEY (id)
);
CREATE TABLE computer (
	id INTEGER NOT NULL, 
	reference VARCHAR NOT NULL, 
	datacenter VARCHAR NOT NULL, 
	region VARCHAR NOT NULL, 
	labels JSON NOT NULL, 
	address VARCHAR NOT NULL, 
	number BIGINT NOT NULL, 
	fetched_number BIGINT NOT NULL, 
	contacted_at FLOAT, provider VARCHAR(255) DEFAULT '' NOT NULL, network VARCHAR(255) DEFAULT '' NOT NULL, state VARCHAR(255) DEFAULT 'eligible' NOT NULL, coordinates JSON DEFAULT '[]' NOT NULL, measured JSON DEFAULT '{}' NOT NULL, revision BIGINT DEFAULT '0' NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (reference)
);
INSERT INTO "computer" VALUES(1,'paris','paris','eu','{}','127.0.0.1',1795501101856662,1795501101796754,1.7955011018343613148e+09,'','','eligible','[]','{}',0);
CREATE TABLE instance (
	id INTEGER NOT NULL, 
	reference VARCHAR NOT NULL, 
	tree_id INTEGER NOT NULL, 
	live BOOLEAN, 
	requester_id INTEGER, 
	software_release VARCHAR NOT NULL, 
	software_type VARCHAR NOT NULL, 
	parameters JSON NOT NULL, 
	sla JSON NOT NULL, 
	connection JSON NOT NULL, 
	requested_state VARCHAR NOT NULL, 
	state VARCHAR NOT NULL, 
	reported_state VARCHAR NOT NULL, 
	reported_at DOUBLE, 
	reported_number BIGINT NOT NULL, 
	error VARCHAR NOT NULL, 
	error_at DOUBLE, 
	partition_id INTEGER, 
	placement JSON NOT NULL, 
	number BIGINT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	destroyed_at DOUBLE, shared BOOLEAN DEFAULT '0' NOT NULL, provider_id INTEGER REFERENCES instance (id), 
	PRIMARY KEY (id), 
	UNIQUE (tree_id, reference, live), 
	FOREIGN KEY(requester_id) REFERENCES instance (id), 
	UNIQUE (partition_id), 
	FOREIGN KEY(partition_id) REFERENCES partition (id)
);
INSERT INTO "instance" VALUES(1,'cluster',0,1,NULL,'https://example.org/software/neo/software.cfg','default','{}','{}','{}','started','started','',NULL,0,'',NULL,1,'[{"computer": "paris", "chosen": true, "score": [0, 0, -2], "explanation": "2 of 2 partitions free"}]',1795501101856662,1.79550110178676772115e+09,NULL,0,NULL);
INSERT INTO "instance" VALUES(2,'storage',1,1,1,'https://example.org/software/neo/software.cfg','default','{}','{}','{"url": "neo://"}','started','started','started',1.79550110185525178905e+09,1795501101796754,'',NULL,2,'[{"computer": "paris", "chosen": true, "score": [0, 0, -1], "explanation": "1 of 2 partitions free"}]',1795501101842850,1.79550110184058189389e+09,NULL,0,NULL);
CREATE TABLE partition (
	id INTEGER NOT NULL, 
	computer_id INTEGER NOT NULL, 
	reference VARCHAR NOT NULL, 
	addresses JSON NOT NULL, 
	offered BOOLEAN NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (computer_id, reference), 
	FOREIGN KEY(computer_id) REFERENCES computer (id)
);
INSERT INTO "partition" VALUES(1,1,'slappart0','[["tap0", "10.0.0.0"]]',1);
INSERT INTO "partition" VALUES(2,1,'slappart1','[["tap1", "10.0.0.1"]]',1);
CREATE TABLE "plan" (
	id INTEGER NOT NULL, 
	created_at DOUBLE NOT NULL, 
	created_by VARCHAR(255) DEFAULT '' NOT NULL, 
	request JSON NOT NULL, 
	effects JSON NOT NULL, 
	applied_at DOUBLE, 
	PRIMARY KEY (id)
);
CREATE TABLE product (
	name VARCHAR NOT NULL, 
	release_url VARCHAR NOT NULL, 
	software_type VARCHAR NOT NULL, 
	version VARCHAR NOT NULL, 
	defaults JSON NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "product" VALUES('neo','https://example.org/software/neo/software.cfg','default','','{}');
CREATE TABLE property (
	name VARCHAR NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "property" VALUES('last_number',1795501101856662);
CREATE TABLE software (
	id INTEGER NOT NULL, 
	computer_id INTEGER NOT NULL, 
	url VARCHAR NOT NULL, 
	requested_state VARCHAR NOT NULL, 
	reported_state VARCHAR NOT NULL, 
	reported_at DOUBLE, 
	error VARCHAR NOT NULL, 
	number BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (computer_id, url), 
	FOREIGN KEY(computer_id) REFERENCES computer (id)
);
INSERT INTO "software" VALUES(1,1,'https://example.org/software/neo/software.cfg','available','',NULL,'',1795501101796754);
CREATE TABLE token (
	digest VARCHAR(64) NOT NULL, 
	kind VARCHAR(255) DEFAULT '' NOT NULL, 
	name VARCHAR(255) DEFAULT '' NOT NULL, 
	role VARCHAR(255) DEFAULT '' NOT NULL, 
	labels JSON NOT NULL, 
	created_by VARCHAR(255) DEFAULT '' NOT NULL, 
	created_at DOUBLE NOT NULL, 
	expires_at DOUBLE NOT NULL, 
	used_at DOUBLE, 
	public_key VARCHAR(255) DEFAULT '' NOT NULL, 
	PRIMARY KEY (digest)
);
CREATE TABLE user (
	name VARCHAR(255) NOT NULL, 
	role VARCHAR(255) DEFAULT '' NOT NULL, 
	created_at DOUBLE NOT NULL, 
	removed_at DOUBLE, 
	PRIMARY KEY (name)
);
CREATE INDEX ix_instance_tree_id ON instance (tree_id);
CREATE INDEX ix_instance_requester_id ON instance (requester_id);
CREATE INDEX ix_computer_revision ON computer (revision);
CREATE INDEX ix_instance_provider_id ON instance (provider_id);
CREATE INDEX change_by_subject ON change (kind, subject, id);
CREATE INDEX change_by_tree ON change (tree_id, id);
CREATE INDEX ix_certificate_name ON certificate (name);
COMMIT;
