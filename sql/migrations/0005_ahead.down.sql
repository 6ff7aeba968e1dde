DROP TABLE ahead;
