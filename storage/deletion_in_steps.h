#pragma once

#include <cstdint>
#include <memory>

#include <rocksdb/file_system.h>

namespace tensorforge::storage {

constexpr std::uint64_t kDeletionStepBytes = std::uint64_t{4} << 20U;

/// `files`, where a write-ahead log (`*.log`) that is deleted is first cut from its end, `step_bytes` at a time. A file
/// system that tells the disk what it frees (ext4 without a journal, mounted with `discard`) does so when a name goes,
/// and whoever syncs another file waits for it: some 10 ms for a log of 64 MiB, and 1 to 2 for each of these steps.
///
/// A log that has a second name is deleted as it is. Nobody may read one meanwhile: RocksDB deletes a log when all of
/// it is in tables and its manifest says so, and does not look at what is left of it after a power cut.
///
/// Threads: as `files`.
std::shared_ptr<rocksdb::FileSystem> with_deletion_in_steps(const std::shared_ptr<rocksdb::FileSystem>& files,
                                                            std::uint64_t step_bytes = kDeletionStepBytes);

}  // namespace tensorforge::storage
