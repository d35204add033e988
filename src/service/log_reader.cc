#include "service/log_reader.h"

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "platform/names.h"
#include "service/pages.h"
#include "service/replies.h"

namespace tensorforge::service {
namespace {

constexpr std::size_t kScanPageRecords = 10'000;
constexpr std::size_t kScanPageBytes = std::size_t{4} << 20U;
std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

class Reader {
 public:
  Reader(const storage::Log& log, std::size_t max_bytes, std::size_t scan_records)
      : log_(log), end_(log.durable_head()), max_bytes_(max_bytes), scan_records_(scan_records) {
    reply_.sequence = end_.sequence;
    reply_.incarnation = end_.incarnation;
  }

  Reply run(const LogRead& read) {
    absl::Status status = std::visit(*this, read);
    if (status.ok()) return std::move(reply_);
    Reply refusal;
    refusal.status = std::move(status);
    refusal.sequence = end_.sequence;
    refusal.incarnation = end_.incarnation;
    return refusal;
  }

  absl::Status operator()(const ReadAnswer& read) {
    std::vector<Record> records;
    while (records.size() < read.count) {
      const auto page = log_.read(read.first + records.size(), read.count - records.size(), kScanPageBytes);
      if (!page.ok()) return page.status();
      if (page->records.empty()) return absl::DataLossError(fmt::format("record {} is missing", read.first));
      for (const std::string& bytes : page->records) {
        Result<Record> record = codec::decode_record(bytes_of(bytes));
        if (!record.ok()) return record.status();
        records.push_back(*std::move(record));
      }
    }
    reply_ = reply_from_records(records);
    return absl::OkStatus();
  }

  absl::Status operator()(const query::ReadLog& read) {
    const Result<std::size_t> size = page_size({read.page_size, std::nullopt});
    if (!size.ok()) return size.status();
    const Sequence first = std::max<Sequence>(read.first, 1);
    reply_.result = result::LogRecords{};
    if (first > end_.sequence) return absl::OkStatus();
    const auto page = log_.read(first, *size, max_bytes_);
    if (!page.ok()) return page.status();
    Sequence next = first;
    for (const std::string& record : page->records) {
      if (next > end_.sequence) break;
      const Result<bool> fits = add(next, record);
      if (!fits.ok()) return fits.status();
      if (!*fits) break;
      ++next;
    }
    if (next <= end_.sequence) reply_.next_page_token = std::to_string(next);
    return absl::OkStatus();
  }

  absl::Status operator()(const query::ReadHistory& read) {
    absl::Status status = check_stream_name(read.stream);
    if (!status.ok()) return status;
    const Result<std::size_t> size = page_size(read.page);
    if (!size.ok()) return size.status();
    Sequence next = 1;
    if (read.page.token) {
      const Result<Sequence> token = number_token(read.page);
      if (!token.ok()) return token.status();
      next = std::max<Sequence>(*token, 1);
    }
    reply_.result = result::LogRecords{};
    for (std::size_t scanned = 0; next <= end_.sequence && scanned < scan_records_;) {
      const auto page = log_.read(next, std::min(kScanPageRecords, scan_records_ - scanned), kScanPageBytes);
      if (!page.ok()) return page.status();
      if (page->records.empty()) break;
      for (const std::string& bytes : page->records) {
        if (next > end_.sequence) return absl::OkStatus();
        const Result<bool> taken = take_if_of_stream(next, bytes, read.stream, *size);
        if (!taken.ok()) return taken.status();
        if (!*taken) {
          reply_.next_page_token = std::to_string(next);
          return absl::OkStatus();
        }
        ++next;
        ++scanned;
      }
    }
    if (next <= end_.sequence) reply_.next_page_token = std::to_string(next);
    return absl::OkStatus();
  }

  absl::Status operator()(const query::VerifyLog&) {
    const Result<storage::LogVerified> verified = log_.verify();
    if (!verified.ok()) return verified.status();
    reply_.result = result::LogVerified{verified->end.sequence, verified->end.root, verified->chunks, verified->bytes};
    reply_.sequence = verified->end.sequence;
    return absl::OkStatus();
  }

  absl::Status operator()(const TakeSnapshot&) {
    return absl::UnimplementedError("this service has no place for snapshots");
  }

 private:
  std::vector<result::LogRecord>& found() { return std::get<result::LogRecords>(reply_.result).records; }

  /// false: it belongs to the stream and has no room on this page.
  Result<bool> take_if_of_stream(Sequence sequence, const std::string& bytes, std::string_view stream,
                                 std::size_t limit) {
    const Result<Record> record = codec::decode_record(bytes_of(bytes));
    if (!record.ok()) return record.status();
    if (!is_of_stream(*record, stream)) return true;
    if (found().size() == limit) return false;
    return add(sequence, bytes);
  }

  /// Adds a record and its note; false: it does not fit.
  Result<bool> add(Sequence sequence, const std::string& bytes) {
    Result<std::optional<storage::Note>> note = log_.note(sequence);
    if (!note.ok()) return note.status();
    result::LogRecord entry{bytes, std::nullopt, ""};
    if (*note) {
      entry.salt = (*note)->salt;
      entry.note = std::move((*note)->bytes);
    }
    used_ += codec::page_bytes(entry);
    if (!found().empty() && used_ > max_bytes_) return false;
    found().push_back(std::move(entry));
    return true;
  }

  const storage::Log& log_;
  storage::TreeHead end_;
  std::size_t max_bytes_;
  std::size_t scan_records_;
  std::size_t used_{};
  Reply reply_;
};

constexpr std::string_view kSessionPrefix = "session/";
constexpr std::string_view kPrincipalPrefix = "principal/";

}  // namespace

Reply run_read(const storage::Log& log, const LogRead& read, std::size_t max_reply_bytes,
               std::size_t history_scan_records) {
  return Reader(log, max_reply_bytes, history_scan_records).run(read);
}

bool is_of_stream(const Record& record, std::string_view stream) {
  if (stream.substr(0, kSessionPrefix.size()) == kSessionPrefix) {
    return record.session && format_session(*record.session) == stream.substr(kSessionPrefix.size());
  }
  if (stream.substr(0, kPrincipalPrefix.size()) == kPrincipalPrefix) {
    return record.actor == stream.substr(kPrincipalPrefix.size());
  }
  const std::vector<std::string> streams = streams_of(record.event);
  return std::find(streams.begin(), streams.end(), stream) != streams.end();
}

absl::Status check_stream_name(std::string_view stream) {
  static constexpr std::array<std::string_view, 5> kKinds = {kModelStreams, "pool/", "run/", kSessionPrefix,
                                                             kPrincipalPrefix};
  const auto names_one = [&](std::string_view kind) {
    return stream.size() > kind.size() && stream.substr(0, kind.size()) == kind;
  };
  const bool too_long = stream.size() > kPrincipalPrefix.size() + names::kMaxIdBytes;
  if (!too_long && (stream == "server" || std::any_of(kKinds.begin(), kKinds.end(), names_one)))
    return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("stream {}: streams are model/ID, pool/DEVICE, run/RUN, session/HEX, principal/NAME and server",
                  names::quoted(stream)));
}

}  // namespace tensorforge::service
