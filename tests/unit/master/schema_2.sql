BEGIN TRANSACTION;
CREATE TABLE computer (
	id INTEGER NOT NULL, 
	reference VARCHAR NOT NULL, 
	datacenter VARCHAR NOT NULL, 
	region VARCHAR NOT NULL, 
	labels JSON NOT NULL, 
	address VARCHAR NOT NULL, 
	number BIGINT NOT NULL, 
	fetched_number BIGINT NOT NULL, 
	contacted_at FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (reference)
);
INSERT INTO "computer" VALUES(1,'paris','paris','eu','{}','127.0.0.1',1795501101856662,1795501101796754,1.7955011018343613148e+09);
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
	destroyed_at DOUBLE, 
	PRIMARY KEY (id), 
	UNIQUE (tree_id, reference, live), 
	FOREIGN KEY(requester_id) REFERENCES instance (id), 
	UNIQUE (partition_id), 
	FOREIGN KEY(partition_id) REFERENCES partition (id)
);
INSERT INTO "instance" VALUES(1,'cluster',0,1,NULL,'https://example.org/software/neo/software.cfg','default','{}','{}','{}','started','started','',NULL,0,'',NULL,1,'[{"computer": "paris", "chosen": true, "score": [0, 0, -2], "explanation": "2 of 2 partitions free"}]',1795501101856662,1.79550110178676772115e+09,NULL);
INSERT INTO "instance" VALUES(2,'storage',1,1,1,'https://example.org/software/neo/software.cfg','default','{}','{}','{"url": "neo://"}','started','started','started',1.79550110185525178905e+09,1795501101796754,'',NULL,2,'[{"computer": "paris", "chosen": true, "score": [0, 0, -1], "explanation": "1 of 2 partitions free"}]',1795501101842850,1.79550110184058189389e+09,NULL);
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
INSERT INTO "property" VALUES('schema_version',2);
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
CREATE INDEX ix_instance_tree_id ON instance (tree_id);
CREATE INDEX ix_instance_requester_id ON instance (requester_id);
COMMIT;
