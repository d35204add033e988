#pragma once

#include <memory>

#include <rocksdb/file_system.h>

namespace tensorforge::storage {

/// `files`, where zeros stand behind the end of each write-ahead log (`*.log`) that is written: as much again as it
/// has, 16 to 256 KiB and up to a block of the log, written when the ones before are used up. What is appended then
/// goes over bytes that the file has, so that its fsync records no new size and no new extent in the file system's own
/// journal; a log is written twice for it.
///
/// A reader of RocksDB takes a header of zeros for the end of a block. So a log that nobody closed ends where its zeros
/// begin. What a power cut tore is found by its checksum, or by the parts of it that are missing, as in the middle of a
/// file; or it is skipped where its header is lost, which the anchor notices if it was acknowledged.
///
/// Threads: as `files`.
std::shared_ptr<rocksdb::FileSystem> with_zeros_ahead(const std::shared_ptr<rocksdb::FileSystem>& files);

}  // namespace tensorforge::storage
