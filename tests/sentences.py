"""Two unlike sentences in each of some languages and scripts, for metrics that cut texts up."""

SENTENCES = {
    "Bulgarian": ("Котката спи на дивана.", "Кучето тича в градината през 2020."),
    "Greek": ("Η γάτα κοιμάται εδώ.", "Ο σκύλος τρέχει έξω."),
    "Arabic": ("القطة نائمة على الأريكة.", "الكلب يجري في الحديقة."),
    "Hebrew": ("החתול ישן על הספה.", "הכלב רץ בגינה."),
    "Hindi": ("बिल्ली सोफे पर सो रही है।", "कुत्ता बाहर दौड़ता था।"),
    "Bengali": ("বিড়ালটি সোফায় ঘুমাচ্ছে।", "কুকুর বাইরে দৌড়ায়।"),
    "Telugu": ("పిల్లి సోఫా మీద నిద్రపోతోంది.", "కుక్క బయట పరుగెత్తింది."),
    "Thai": ("แมวนอนอยู่บนโซฟา", "สุนัขวิ่งในสวน"),
    "Chinese": ("猫在沙发上睡觉。", "狗在花园里跑。"),
    "Japanese": ("猫はソファで寝ています。", "犬が庭を走った。"),
    "Korean": ("고양이가 소파에서 잔다.", "개가 정원에서 달렸다."),
    "Vietnamese": ("Con mèo ngủ trên ghế.", "Chó chạy ngoài vườn."),
    "Swahili": ("Paka analala kwenye sofa.", "Mbwa alikimbia nje."),
    "emoji": ("🙂🐱", "🐶🌳"),
}
UNSPACED = {"Thai", "Chinese", "Japanese"}
# Those of which ROUGE's own tokenizer keeps too little.
NOT_ASCII = set(SENTENCES) - {"Vietnamese", "Swahili"}
