import Foundation
import Testing

/// The manifest, held to the layers that it declares.
@Suite("The layers of the product")
struct LayerTests {
    @Test("are imported downwards and sideways, and never upwards")
    func imports() throws {
        let manifest = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../Package.swift")
        let text = try String(contentsOf: manifest, encoding: .utf8)
        let layers = text.matches(of: /case (\w+) = "\w+"/).map { String($0.1) }
        #expect(layers == ["system", "values", "pages", "guests", "control"])
        let modules = text.matches(of: /module\(\s*"(\w+)",\s*in: \.(\w+)((?:[^()]|\n)*?)(?:\),|settings:)/)
        var heights: [String: Int] = [:]
        for module in modules { heights[String(module.1)] = layers.firstIndex(of: String(module.2)) }
        #expect(heights.count > 20)
        for module in modules {
            let height = try #require(heights[String(module.1)])
            for imported in module.3.matches(of: /"(\w+)"/) {
                // CShims and KVMGuestCode hold no Swift.
                guard let other = heights[String(imported.1)] else { continue }
                #expect(other <= height, "\(module.1) imports \(imported.1), which lies above")
            }
        }
    }
}
