#pragma once

#include <memory>

#include <rocksdb/file_system.h>

namespace tensorforge::storage {

/// `files`, where zeros stand behind the end of each write-ahead log (`*.log`) that is written: as much again as it has,
/// within 16 and 256 KiB, written when the ones before are used up. What is appended then goes over blocks that the file has,
/// so that its fsync records no new size and no new extent in the file system's own journal; a log is written twice for it.
///
/// A reader of RocksDB takes zeros for the end of a block. So a log that nobody closed ends where its zeros begin, and
/// what a power cut tore, it finds by the checksum, as in the middle of a file.
///
/// Threads: as `files`.
std::shared_ptr<rocksdb::FileSystem> with_zeros_ahead(std::shared_ptr<rocksdb::FileSystem> files);

}  // namespace tensorforge::storage
