#include "storage/snapshot_file.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <charconv>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "storage/bytes.h"
#include "storage/crash_point.h"
#include "storage/crc32c.h"
#include "storage/files.h"

namespace tensorforge::storage {
namespace {

const rocksdb::IOOptions kIo;

constexpr std::string_view kHeadMagic = "TFSN";
constexpr std::string_view kPageMagic = "TFSP";
constexpr std::string_view kEndMagic = "TFSE";
constexpr std::uint32_t kFormat = 1;

// The head, byte by byte.
constexpr std::size_t kFormatAt = 4;
constexpr std::size_t kLogIdAt = 8;
constexpr std::size_t kSequenceAt = 24;
constexpr std::size_t kChunkNumberAt = 32;
constexpr std::size_t kIncarnationAt = 40;
constexpr std::size_t kHashesAt = 64;
constexpr std::size_t kHeadCrcAt = kSnapshotHeadBytes - 4;
static_assert(kHashesAt + 64 * sizeof(Hash) <= kHeadCrcAt);

// The header of a page, and the end, which looks like one.
constexpr std::size_t kPageNumberAt = 4;  // of the end: how many pages there are
constexpr std::size_t kPageLengthAt = 8;  // of the end: the CRC of the pages' CRCs
constexpr std::size_t kPageCrcAt = 12;    // of the 12 bytes before and the page

/// Written back so far apart, so that the final sync, and with it the log's, has little left to wait for.
constexpr std::uint64_t kWriteBackBytes = std::uint64_t{1} << 20U;

std::string page_header(std::string_view magic, std::uint32_t number, std::uint32_t length, std::string_view page) {
  std::string header(kSnapshotPageHeaderBytes, '\0');
  magic.copy(header.data(), magic.size());
  put_little(&header[kPageNumberAt], number);
  put_little(&header[kPageLengthAt], length);
  put_little(&header[kPageCrcAt], crc32c(page, crc32c(std::string_view(header).substr(0, kPageCrcAt))));
  return header;
}

/// The CRC over the pages' CRCs, each of 4 bytes: pages of two snapshots cannot be mixed.
std::uint32_t with_page(std::uint32_t pages_crc, std::string_view header) {
  return crc32c(header.substr(kPageCrcAt, 4), pages_crc);
}

std::optional<Sequence> parse_name(std::string_view name) {
  Sequence sequence = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), sequence);
  const bool is_one = error == std::errc() && end == name.data() + name.size() && fmt::format("{}", sequence) == name;
  return is_one ? std::optional(sequence) : std::nullopt;
}

constexpr std::string_view kUnfinished = ".new";

}  // namespace

std::string encode_snapshot_head(const SnapshotHead& head) {
  std::string bytes(kSnapshotHeadBytes, '\0');
  kHeadMagic.copy(bytes.data(), kHeadMagic.size());
  put_little(&bytes[kFormatAt], kFormat);
  view_of(head.log_id).copy(&bytes[kLogIdAt], head.log_id.size());
  put_little(&bytes[kSequenceAt], head.at.sequence());
  put_little(&bytes[kChunkNumberAt], head.at.chunk_number);
  put_little(&bytes[kIncarnationAt], head.incarnation);
  std::size_t at = kHashesAt;
  for (const Hash& hash : head.at.frontier.hashes()) at += view_of(hash).copy(&bytes[at], hash.size());
  put_little(&bytes[kHeadCrcAt], crc32c(std::string_view(bytes).substr(0, kHeadCrcAt)));
  return bytes;
}

Result<SnapshotHead> decode_snapshot_head(std::string_view bytes) {
  if (bytes.size() < kSnapshotHeadBytes) return absl::DataLossError("it ends inside its head");
  bytes = bytes.substr(0, kSnapshotHeadBytes);
  if (bytes.substr(0, kHeadMagic.size()) != kHeadMagic) {
    return absl::DataLossError("it does not begin as a snapshot does");
  }
  if (get_little<std::uint32_t>(&bytes[kHeadCrcAt]) != crc32c(bytes.substr(0, kHeadCrcAt))) {
    return absl::DataLossError("the checksum of its head is wrong");
  }
  const auto format = get_little<std::uint32_t>(&bytes[kFormatAt]);
  if (format != kFormat) {
    return absl::FailedPreconditionError(
        fmt::format("it has format {}, this program knows {}: written by a newer version", format, kFormat));
  }
  SnapshotHead head;
  std::copy_n(&bytes[kLogIdAt], head.log_id.size(), head.log_id.begin());
  head.incarnation = get_little<std::uint32_t>(&bytes[kIncarnationAt]);
  const auto sequence = get_little<Sequence>(&bytes[kSequenceAt]);
  std::vector<Hash> hashes(static_cast<std::size_t>(std::popcount(sequence)));
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    std::copy_n(&bytes[kHashesAt + i * sizeof(Hash)], sizeof(Hash), hashes[i].begin());
  }
  head.at = {get_little<std::uint64_t>(&bytes[kChunkNumberAt]), MerkleFrontier(sequence, std::move(hashes))};
  if (sequence == 0 || head.at.chunk_number == 0 || head.at.chunk_number > sequence) {
    return absl::DataLossError("its sequence or chunk number is impossible");
  }
  return head;
}

Result<std::unique_ptr<SnapshotWriter>> SnapshotWriter::create(std::shared_ptr<rocksdb::FileSystem> files,
                                                               const std::string& directory, const SnapshotHead& head) {
  const std::string path = fmt::format("{}/{}{}", directory, head.at.sequence(), kUnfinished);
  std::unique_ptr<rocksdb::FSWritableFile> file;
  const rocksdb::IOStatus status = files->NewWritableFile(path, {}, &file, nullptr);
  if (!status.ok()) return to_status(status, fmt::format("create {}", path));
  std::unique_ptr<SnapshotWriter> writer(
      new SnapshotWriter(std::move(files), directory, head.at.sequence(), std::move(file)));
  if (absl::Status begun = writer->append(encode_snapshot_head(head)); !begun.ok()) return begun;
  return writer;
}

SnapshotWriter::SnapshotWriter(std::shared_ptr<rocksdb::FileSystem> files, const std::string& directory,
                               Sequence sequence, std::unique_ptr<rocksdb::FSWritableFile> file)
    : files_(std::move(files)),
      directory_(directory),
      path_(fmt::format("{}/{}", directory, sequence)),
      file_(std::move(file)) {}

absl::Status SnapshotWriter::append(std::string_view bytes) {
  rocksdb::IOStatus status = file_->Append({bytes.data(), bytes.size()}, kIo, nullptr);
  bytes_ += bytes.size();
  if (status.ok() && bytes_ - written_back_ >= kWriteBackBytes) {
    status = file_->RangeSync(written_back_, bytes_ - written_back_, kIo, nullptr);
    written_back_ = bytes_;
  }
  return to_status(status, fmt::format("write {}", path_));
}

absl::Status SnapshotWriter::add(std::string_view page) {
  assert(!page.empty() && page.size() <= kMaxSnapshotPageBytes);
  const std::string header =
      page_header(kPageMagic, static_cast<std::uint32_t>(pages_), static_cast<std::uint32_t>(page.size()), page);
  pages_crc_ = with_page(pages_crc_, header);
  ++pages_;
  absl::Status status = append(header);
  return status.ok() ? append(page) : status;
}

Result<std::uint64_t> SnapshotWriter::finish() {
  absl::Status status = append(page_header(kEndMagic, static_cast<std::uint32_t>(pages_), pages_crc_, {}));
  if (!status.ok()) return status;
  crash_point(CrashPoint::kSnapshotWritten);
  rocksdb::IOStatus synced = file_->Flush(kIo, nullptr);
  if (synced.ok()) synced = file_->Fsync(kIo, nullptr);
  if (synced.ok()) synced = file_->Close(kIo, nullptr);
  status = to_status(synced, fmt::format("sync {}", path_));
  crash_point(CrashPoint::kSnapshotSynced);
  if (status.ok()) status = rename_file(*files_, path_ + std::string(kUnfinished), path_);
  crash_point(CrashPoint::kSnapshotRenamed);
  if (status.ok()) status = sync_directory(*files_, directory_);
  if (!status.ok()) return status;
  crash_point(CrashPoint::kSnapshotDurable);
  return bytes_;
}

SnapshotReader::SnapshotReader(std::unique_ptr<rocksdb::FSSequentialFile> file, std::string path)
    : file_(std::move(file)), path_(std::move(path)) {}

Result<std::unique_ptr<SnapshotReader>> SnapshotReader::open(rocksdb::FileSystem& files, const std::string& path) {
  std::unique_ptr<rocksdb::FSSequentialFile> file;
  const rocksdb::IOStatus status = files.NewSequentialFile(path, {}, &file, nullptr);
  if (status.IsNotFound() || status.IsPathNotFound()) return absl::NotFoundError(path);
  if (!status.ok()) return to_status(status, fmt::format("open {}", path));
  std::unique_ptr<SnapshotReader> reader(new SnapshotReader(std::move(file), path));
  const Result<std::string_view> bytes = reader->read(kSnapshotHeadBytes);
  if (!bytes.ok()) return bytes.status();
  Result<SnapshotHead> head = decode_snapshot_head(*bytes);
  if (!head.ok())
    return absl::Status(head.status().code(), fmt::format("{}: {}", path, std::string(head.status().message())));
  reader->head_ = *std::move(head);
  return reader;
}

Result<std::string_view> SnapshotReader::read(std::size_t bytes) {
  if (buffer_.size() < bytes) buffer_.resize(bytes);
  std::size_t got = 0;
  while (got < bytes) {
    rocksdb::Slice read;
    const rocksdb::IOStatus status = file_->Read(bytes - got, kIo, &read, &buffer_[got], nullptr);
    if (!status.ok()) return to_status(status, fmt::format("read {}", path_));
    if (read.empty()) break;
    if (read.data() != &buffer_[got]) std::copy_n(read.data(), read.size(), &buffer_[got]);
    got += read.size();
  }
  return std::string_view(buffer_).substr(0, got);
}

absl::Status SnapshotReader::damaged(std::string_view what) const {
  return absl::DataLossError(fmt::format("{}: {}", path_, what));
}

Result<std::optional<std::string_view>> SnapshotReader::next() {
  char header_bytes[kSnapshotPageHeaderBytes];
  const Result<std::string_view> read_header = read(kSnapshotPageHeaderBytes);
  if (!read_header.ok()) return read_header.status();
  if (read_header->size() < kSnapshotPageHeaderBytes) return damaged("it ends before its end");
  read_header->copy(header_bytes, kSnapshotPageHeaderBytes);
  const std::string_view header(header_bytes, kSnapshotPageHeaderBytes);
  if (header.substr(0, kEndMagic.size()) == kEndMagic) {
    if (absl::Status status = check_end(header); !status.ok()) return status;
    return std::nullopt;
  }
  const auto number = get_little<std::uint32_t>(&header[kPageNumberAt]);
  const auto length = get_little<std::uint32_t>(&header[kPageLengthAt]);
  if (header.substr(0, kPageMagic.size()) != kPageMagic) return damaged(fmt::format("page {} is none", pages_));
  if (number != pages_) return damaged(fmt::format("page {} stands where page {} belongs", number, pages_));
  if (length == 0 || length > kMaxSnapshotPageBytes) {
    return damaged(fmt::format("page {} says that it has {} bytes", number, length));
  }
  const Result<std::string_view> page = read(length);
  if (!page.ok()) return page.status();
  if (page->size() < length) return damaged(fmt::format("it ends inside page {}", number));
  if (get_little<std::uint32_t>(&header[kPageCrcAt]) != crc32c(*page, crc32c(header.substr(0, kPageCrcAt)))) {
    return damaged(fmt::format("the checksum of page {} is wrong", number));
  }
  pages_crc_ = with_page(pages_crc_, header);
  ++pages_;
  return *page;
}

absl::Status SnapshotReader::check_end(std::string_view header) {
  if (get_little<std::uint32_t>(&header[kPageCrcAt]) != crc32c(header.substr(0, kPageCrcAt))) {
    return damaged("the checksum of its end is wrong");
  }
  if (get_little<std::uint32_t>(&header[kPageNumberAt]) != pages_) return damaged("pages are missing");
  if (get_little<std::uint32_t>(&header[kPageLengthAt]) != pages_crc_) return damaged("a page is not its own");
  const Result<std::string_view> more = read(1);
  if (!more.ok()) return more.status();
  return more->empty() ? absl::OkStatus() : damaged("it goes on behind its end");
}

SnapshotStore::SnapshotStore(std::shared_ptr<rocksdb::FileSystem> files, const std::string& data_dir)
    : files_(files ? std::move(files) : rocksdb::FileSystem::Default()),
      data_dir_(data_dir),
      directory_(data_dir + "/snapshots") {}

Result<std::vector<Sequence>> SnapshotStore::list() const {
  const Result<std::vector<std::string>> names = list_directory(*files_, directory_);
  if (absl::IsNotFound(names.status())) return std::vector<Sequence>();
  if (!names.ok()) return names.status();
  std::vector<Sequence> sequences;
  for (const std::string& name : *names) {
    if (const auto sequence = parse_name(name)) sequences.push_back(*sequence);
  }
  std::sort(sequences.begin(), sequences.end());
  return sequences;
}

std::string SnapshotStore::path(Sequence sequence) const { return fmt::format("{}/{}", directory_, sequence); }

Result<std::unique_ptr<SnapshotReader>> SnapshotStore::open(Sequence sequence) const {
  Result<std::unique_ptr<SnapshotReader>> reader = SnapshotReader::open(*files_, path(sequence));
  if (!reader.ok()) return reader;
  if ((*reader)->head().at.sequence() == sequence) return reader;
  return absl::DataLossError(
      fmt::format("{}: it says that it is of sequence {}", path(sequence), (*reader)->head().at.sequence()));
}

Result<std::uint64_t> SnapshotStore::bytes(Sequence sequence) const {
  std::uint64_t bytes = 0;
  const rocksdb::IOStatus status = files_->GetFileSize(path(sequence), kIo, &bytes, nullptr);
  if (!status.ok()) return to_status(status, fmt::format("look at {}", path(sequence)));
  return bytes;
}

Result<std::unique_ptr<SnapshotWriter>> SnapshotStore::create(const SnapshotHead& head) const {
  const Result<bool> there = file_exists(*files_, directory_);
  if (!there.ok()) return there.status();
  if (!*there) {
    if (absl::Status status = create_directory(*files_, directory_); !status.ok()) return status;
    if (absl::Status status = sync_directory(*files_, data_dir_); !status.ok()) return status;
  }
  return SnapshotWriter::create(files_, directory_, head);
}

absl::Status SnapshotStore::prune() const {
  const Result<std::vector<std::string>> names = list_directory(*files_, directory_);
  if (absl::IsNotFound(names.status())) return absl::OkStatus();
  if (!names.ok()) return names.status();
  const Result<std::vector<Sequence>> all = list();
  if (!all.ok()) return all.status();
  std::vector<std::string> gone;
  for (const Sequence sequence : superseded(*all)) gone.push_back(fmt::format("{}", sequence));
  for (const std::string& name : *names) {
    const std::string_view view = name;
    const bool unfinished = view.ends_with(kUnfinished) && parse_name(view.substr(0, view.size() - kUnfinished.size()));
    if (unfinished) gone.push_back(name);
  }
  for (const std::string& name : gone) {
    const rocksdb::IOStatus status = files_->DeleteFile(fmt::format("{}/{}", directory_, name), kIo, nullptr);
    if (!status.ok()) return to_status(status, fmt::format("delete {}/{}", directory_, name));
  }
  return absl::OkStatus();
}

std::vector<Sequence> superseded(const std::vector<Sequence>& snapshots) {
  constexpr std::size_t kLast = 3;
  std::vector<Sequence> gone;
  if (snapshots.size() <= kLast) return gone;
  std::set<std::size_t> powers;
  for (std::size_t i = 0; i + kLast < snapshots.size(); ++i) {
    const bool is_oldest =
        powers.insert(static_cast<std::size_t>(std::bit_width(snapshots.back() - snapshots[i]))).second;
    if (!is_oldest) gone.push_back(snapshots[i]);
  }
  return gone;
}

}  // namespace tensorforge::storage
