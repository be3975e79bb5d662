"""The only room that touches the database: LMDB with compressed column chunks and documents."""
