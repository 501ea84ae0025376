import Switchover
import Testing

@Suite("The walk is seen to fail")
struct MutantTests {
    @Test("for each mutant, with the shortest way to the harm", .timeLimit(.minutes(10)), arguments: Mutant.all)
    func mutant(_ mutant: Mutant) throws {
        for property in mutant.breaks {
            let start = World(mutant.setting, driver: mutant.driver)
            let walk = Walk(from: start, by: mutant.behaviour, checking: [property])
            let finding = try #require(walk.finding, "\(mutant.testDescription) survives \(property)")
            print("\(mutant.testDescription): \(finding)")
            #expect(finding.trace.count <= 26)
        }
    }

    @Test("on every property by some mutant")
    func everyProperty() {
        #expect(Set(Mutant.all.flatMap(\.breaks)) == Set(Property.allCases))
    }
}
