#include "storage/head.h"

#include <algorithm>
#include <bit>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "platform/deliberate_bug.h"
#include "storage/bytes.h"
#include "storage/crash_point.h"
#include "storage/crc32c.h"
#include "storage/files.h"

namespace tensorforge::storage {
namespace {

constexpr std::string_view kFileMagic = "TFHD";
constexpr std::string_view kSlotMagic = "TFHS";
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kBlockBytes = 4'096;
constexpr std::size_t kSlotBytes = 512;

// Both kinds of block begin alike.
constexpr std::size_t kFormatAt = 4;
constexpr std::size_t kLogIdAt = 8;
// A slot goes on.
constexpr std::size_t kIncarnationAt = 24;
constexpr std::size_t kEpochAt = 32;
constexpr std::size_t kCounterAt = 40;
constexpr std::size_t kSequenceAt = 48;
constexpr std::size_t kRootAt = 56;
constexpr std::size_t kCrcAt = kSlotBytes - 4;

constexpr std::size_t slot_at(std::uint64_t counter) { return kBlockBytes * (1 + counter % 2); }

std::string encode_first_block(const LogId& log_id) {
  std::string block(kBlockBytes, '\0');
  kFileMagic.copy(block.data(), kFileMagic.size());
  put_little(&block[kFormatAt], kFormat);
  view_of(log_id).copy(&block[kLogIdAt], log_id.size());
  return block;
}

std::string encode_slot(const Anchor& anchor) {
  std::string slot(kSlotBytes, '\0');
  kSlotMagic.copy(slot.data(), kSlotMagic.size());
  put_little(&slot[kFormatAt], kFormat);
  view_of(anchor.log_id).copy(&slot[kLogIdAt], anchor.log_id.size());
  put_little(&slot[kIncarnationAt], anchor.head.incarnation);
  put_little(&slot[kEpochAt], anchor.epoch);
  put_little(&slot[kCounterAt], anchor.counter);
  put_little(&slot[kSequenceAt], anchor.head.sequence);
  view_of(anchor.head.root).copy(&slot[kRootAt], anchor.head.root.size());
  put_little(&slot[kCrcAt], crc32c(std::string_view(slot).substr(0, kCrcAt)));
  return slot;
}

bool is_whole(std::string_view slot) {
  return slot.starts_with(kSlotMagic) && get_little<std::uint32_t>(&slot[kCrcAt]) == crc32c(slot.substr(0, kCrcAt));
}

/// nullopt: torn, damaged, never written, or of another format.
std::optional<Anchor> decode_slot(std::string_view slot, std::size_t at) {
  if (!is_whole(slot) || get_little<std::uint32_t>(&slot[kFormatAt]) != kFormat) return std::nullopt;
  Anchor anchor;
  std::copy_n(&slot[kLogIdAt], anchor.log_id.size(), anchor.log_id.begin());
  anchor.head.incarnation = get_little<std::uint32_t>(&slot[kIncarnationAt]);
  anchor.epoch = get_little<std::uint64_t>(&slot[kEpochAt]);
  anchor.counter = get_little<std::uint64_t>(&slot[kCounterAt]);
  anchor.head.sequence = get_little<std::uint64_t>(&slot[kSequenceAt]);
  std::copy_n(&slot[kRootAt], anchor.head.root.size(), anchor.head.root.begin());
  if (slot_at(anchor.counter) != at) return std::nullopt;
  return anchor;
}

absl::Status newer(std::uint32_t format) {
  return absl::FailedPreconditionError(
      fmt::format("HEAD has format {}, this program knows {}: written by a newer version", format, kFormat));
}

absl::Status damaged(std::string_view what) { return absl::DataLossError(fmt::format("HEAD is damaged: {}", what)); }

}  // namespace

std::string encode_head(const Anchor& anchor) {
  std::string bytes = encode_first_block(anchor.log_id);
  bytes.resize(kHeadBytes, '\0');
  encode_slot(anchor).copy(&bytes[slot_at(anchor.counter)], kSlotBytes);
  return bytes;
}

Result<HeadFile> decode_head(std::string_view bytes) {
  const bool begins_as_ours = bytes.size() >= kLogIdAt && bytes.starts_with(kFileMagic);
  const auto format = begins_as_ours ? get_little<std::uint32_t>(&bytes[kFormatAt]) : kFormat;
  if (bytes.size() != kHeadBytes) {
    if (!begins_as_ours) return absl::FailedPreconditionError("HEAD is not a file of this program");
    if (format > kFormat) return newer(format);
    return damaged(fmt::format("it does not have {} bytes", kHeadBytes));
  }
  const std::string_view slots[] = {bytes.substr(slot_at(0), kSlotBytes), bytes.substr(slot_at(1), kSlotBytes)};
  if (!begins_as_ours && !slots[0].starts_with(kSlotMagic) && !slots[1].starts_with(kSlotMagic)) {
    return absl::FailedPreconditionError("HEAD is not a file of this program");
  }
  const std::optional<Anchor> anchors[] = {decode_slot(slots[0], slot_at(0)), decode_slot(slots[1], slot_at(1))};
  const bool any_valid = anchors[0] || anchors[1];

  // One wrong bit in a format that the slots contradict is damage; anything else is what a newer version wrote.
  if (format > kFormat && !(any_valid && std::has_single_bit(format ^ kFormat))) return newer(format);
  for (const std::string_view slot : slots) {
    const auto slot_format = get_little<std::uint32_t>(&slot[kFormatAt]);
    if (is_whole(slot) && slot_format > kFormat) return newer(slot_format);
  }
  if (!any_valid) return damaged("neither of its two slots is whole, and only one can be torn by a power cut");
  if (anchors[0] && anchors[1] && anchors[0]->log_id != anchors[1]->log_id) {
    return damaged("its two slots are of different logs");
  }

  const bool second = !anchors[0] || (anchors[1] && anchors[1]->counter > anchors[0]->counter);
  const Anchor& anchor = second ? *anchors[1] : *anchors[0];
  if (bytes.substr(0, kBlockBytes) != encode_first_block(anchor.log_id)) {
    return damaged("its first block, which is written once, has changed");
  }
  const std::string_view other = slots[second ? 0 : 1];
  return HeadFile{anchor, std::all_of(other.begin(), other.end(), [](char byte) { return byte == '\0'; })};
}

Result<HeadFile> read_head(rocksdb::FileSystem& files, const std::string& path) {
  const Result<std::string> bytes = read_file(files, path, kHeadBytes + 1);
  if (!bytes.ok()) return bytes.status();
  return decode_head(*bytes);
}

absl::Status create_head(rocksdb::FileSystem& files, const std::string& data_dir, const Anchor& anchor) {
  const std::string making = data_dir + "/HEAD.new";
  if (absl::Status status = write_file(files, making, encode_head(anchor)); !status.ok()) return status;
  crash_point(CrashPoint::kHeadWritten);
  if (absl::Status status = rename_file(files, making, data_dir + "/HEAD"); !status.ok()) return status;
  crash_point(CrashPoint::kHeadRenamed);
  if (deliberate_bug(DeliberateBug::kRenameWithoutDirectorySync)) return absl::OkStatus();
  absl::Status status = sync_directory(files, data_dir);
  crash_point(CrashPoint::kHeadDurable);
  return status;
}

Result<std::unique_ptr<HeadWriter>> HeadWriter::open(rocksdb::FileSystem& files, const std::string& path,
                                                     const Anchor& last) {
  std::unique_ptr<rocksdb::FSRandomRWFile> file;
  const rocksdb::IOStatus status = files.NewRandomRWFile(path, {}, &file, nullptr);
  if (!status.ok()) return to_status(status, fmt::format("open {}", path));
  return std::unique_ptr<HeadWriter>(new HeadWriter(std::move(file), last));
}

HeadWriter::HeadWriter(std::unique_ptr<rocksdb::FSRandomRWFile> file, const Anchor& last)
    : file_(std::move(file)), last_(last) {}

absl::Status HeadWriter::write(const TreeHead& head) {
  Anchor next = last_;
  next.head = head;
  ++next.counter;
  crash_point(CrashPoint::kHeadToWrite);
  Anchor written = next;
  if (deliberate_bug(DeliberateBug::kAnchorTooHigh)) ++written.head.sequence;
  rocksdb::IOStatus status = file_->Write(slot_at(next.counter), encode_slot(written), {}, nullptr);
  crash_point(CrashPoint::kHeadSlotWritten);
  if (status.ok()) status = file_->Sync({}, nullptr);
  if (!status.ok() && deliberate_bug(DeliberateBug::kFailedSyncRetried)) status = file_->Sync({}, nullptr);
  if (!status.ok()) return to_status(status, "write HEAD");
  crash_point(CrashPoint::kHeadSlotSynced);
  last_ = next;
  return absl::OkStatus();
}

}  // namespace tensorforge::storage
