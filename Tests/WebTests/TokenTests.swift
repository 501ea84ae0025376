import Testing

@testable import Web

@Suite("A token")
struct TokenTests {
    @Test("has 16 to 512 visible characters")
    func form() {
        #expect(WebToken(String(repeating: "a", count: 15)) == nil)
        #expect(WebToken(String(repeating: "a", count: 513)) == nil)
        for text in ["a token with spaces", "a-token-with-ä-in-it", "a-token-with\u{0}-in-it", ""] {
            #expect(WebToken(text) == nil)
        }
        #expect(WebToken(String(repeating: "~", count: 512)) != nil)
    }

    @Test("matches itself only")
    func matching() throws {
        let token = try #require(WebToken("0123456789abcdef"))
        #expect(token.matches("0123456789abcdef"))
        for text in ["", "0", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcdef0123456789abcdef"] {
            #expect(!token.matches(text))
        }
    }
}
