#include "platform/digest.h"

#include <limits>

#include <gtest/gtest.h>
#include <xxhash.h>

namespace tensorforge {
namespace {

constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();

Digest sum(Digest a, const Digest& b) { return a += b; }
Digest difference(Digest a, const Digest& b) { return a -= b; }

TEST(Digest, AddsAndSubtractsModuloTwoToThe128) {
  EXPECT_EQ(sum({0, kMax}, {0, 1}), (Digest{1, 0}));
  EXPECT_EQ(sum({kMax, kMax}, {0, 1}), (Digest{0, 0}));
  EXPECT_EQ(sum({1, kMax}, {2, kMax}), (Digest{4, kMax - 1}));
  EXPECT_EQ(difference({1, 0}, {0, 1}), (Digest{0, kMax}));
  EXPECT_EQ(difference({0, 0}, {0, 1}), (Digest{kMax, kMax}));
  const Digest a{0x123456789ABCDEF0, 0xFEDCBA9876543210}, b{0xF0F0F0F0F0F0F0F0, 0xFFFFFFFF00000000};
  EXPECT_EQ(difference(sum(a, b), b), a);
  EXPECT_EQ(sum(a, b), sum(b, a));
}

TEST(Digest, IsWrittenAsThirtyTwoHexDigits) {
  EXPECT_EQ(format_digest({0, 0xAB}), "000000000000000000000000000000ab");
  EXPECT_EQ(format_digest({kMax, kMax}), std::string(32, 'f'));
}

TEST(CanonicalBytes, TellFieldsApart) {
  EXPECT_NE(CanonicalBytes("k").text("ab").text("c").digest(), CanonicalBytes("k").text("a").text("bc").digest());
  EXPECT_NE(CanonicalBytes("k").digest(), CanonicalBytes("l").digest());
  EXPECT_NE(CanonicalBytes("k").number(1).number(2).digest(), CanonicalBytes("k").number(2).number(1).digest());
}

TEST(CanonicalBytes, DoNotTellZerosApart) {
  EXPECT_EQ(CanonicalBytes("k").real(-0.0).digest(), CanonicalBytes("k").real(0.0).digest());
}

// XXH3-128 of 01 00 00 00 00 00 00 00 'k' 02 01 00 00 00 00 00 00. Digests are in every log.
TEST(CanonicalBytes, HashToTheSameForEver) {
  EXPECT_EQ(format_digest(CanonicalBytes("k").number(0x0102).digest()), "5bef6258b203ab330d806fa587992831");
}

TEST(CanonicalBytes, HashWhatIsLongAsWhatIsShort) {
  // Of 1,024 bytes the kind takes 9, the size of the text 8, the end 11 and the number 8.
  for (const std::size_t size :
       {0, 1, 900, 987, 988, 989, 995, 996, 997, 998, 999, 1'000, 1'006, 1'007, 1'008, 1'024, 1'025, 5'000}) {
    SCOPED_TRACE(size);
    const std::string text(size, 'x');
    std::string bytes;
    for (const std::string& part : {std::string("k"), text, std::string("end")}) {
      bytes += std::string{static_cast<char>(part.size() & 0xFFU), static_cast<char>(part.size() >> 8U)};
      bytes += std::string(6, '\0') + part;
    }
    bytes += std::string("\x07\0\0\0\0\0\0\0", 8);
    const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
    EXPECT_EQ(CanonicalBytes("k").text(text).text("end").number(7).digest(), (Digest{hash.high64, hash.low64}));
  }
}

}  // namespace
}  // namespace tensorforge
