import Testing

@testable import QMP

@Suite struct JSONValueTests {
    @Test func `every kind of value survives its text`() throws {
        let value: JSONValue = [
            "null": nil, "true": true, "integer": -7, "fraction": 2.5, "string": "ü\"\\\n/", "array": [1, "two", []],
            "object": ["a": [:]], "most": .integer(.max), "least": .integer(.min),
        ]
        #expect(try JSONReader.read(value.text) == value)
    }

    @Test func `members are sorted, and slashes are not escaped`() {
        #expect(JSONValue.object(["b": "/x", "a": 1]).description == #"{"a":1,"b":"/x"}"#)
    }

    @Test func `a whole number keeps all of its digits in 64 bits, and becomes a double beyond them`() throws {
        #expect(JSONValue(UInt64.max) == .unsigned(.max))
        #expect(JSONValue(UInt64(7)) == .integer(7))
        for digits in ["9223372036854775807", "9223372036854775808", "18446744073709551615"] {
            #expect(try JSONReader.read(Array(digits.utf8)).description == digits)
        }
        #expect(try JSONReader.read(Array("18446744073709551616".utf8)) == .double(0x1p64))
        #expect(try JSONReader.read(Array("-9223372036854775808".utf8)) == .integer(.min))
    }

    @Test func `escapes are read`() throws {
        let text = #""\u0041\ud83d\ude00\b\f\n\r\t\/\\\"\u00e9é""#
        #expect(try JSONReader.read(Array(text.utf8)) == .string("A😀\u{8}\u{C}\n\r\t/\\\"éé"))
    }

    @Test func `one and true are different values`() throws {
        #expect(try JSONReader.read(Array("[1,true,0,false]".utf8)) == [1, true, 0, false])
    }

    @Test func `a number that is not finite is written as null`() {
        #expect(JSONValue.array([.double(.nan), .double(.infinity)]).description == "[null,null]")
    }

    @Test func `an accessor returns nil for a value of another kind`() {
        let value: JSONValue = ["n": 3, "list": ["x"]]
        #expect(value["n"]?.integer == 3)
        #expect(value["n"]?.double == 3)
        #expect(value["n"]?.string == nil)
        #expect(value["list"]?[0]?.string == "x")
        #expect(value["list"]?[1] == nil)
        #expect(value["none"] == nil)
        #expect(JSONValue.null.isNull)
    }

    @Test(arguments: [
        "", "{", "{\"a\":}", "{\"a\" 1}", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":1}", "[1 2]", "-", "1.", ".5", "1e",
        "+1",
        "\"\\u12\"", "\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"", "nul", "tru", "'x'", "01", "1e999",
        "\"\\x\"", "{\"a\":1}}", "\u{0}",
    ])
    func `a text that is not JSON is refused with a reason`(text: String) {
        let error = #expect(throws: QMPError.self) { try JSONReader.read(Array(text.utf8)) }
        #expect(error?.errorClass == .genericError)
        #expect(error?.description.hasPrefix("JSON parse error, ") == true)
    }

    @Test func `bytes that are not UTF-8 are refused`() {
        #expect(throws: QMPError.self) { try JSONReader.read([0x22, 0xC3, 0x28, 0x22]) }
    }
}
